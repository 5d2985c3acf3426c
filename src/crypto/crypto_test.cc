#include "crypto/crypto.h"

#include <gtest/gtest.h>

namespace ganglion::crypto {
namespace {

// FIPS 180-4 example values.
TEST(Sha256, MatchesThePublishedVectors) {
  EXPECT_EQ(Sha256("abc").Hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256("").Hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256("abc").Short(), "ba78");
}

TEST(Sha256, IsTheSameInPieces) {
  Sha256Stream stream;
  stream.Add(std::as_bytes(std::span("a", 1)));
  stream.Add(std::as_bytes(std::span("bc", 2)));
  EXPECT_EQ(stream.Finish(), Sha256("abc"));
}

TEST(Digest, ReadsOnlyWhatItWrites) {
  const Digest d = Sha256("abc");
  EXPECT_EQ(DigestFromHex(d.Hex()).value(), d);
  EXPECT_FALSE(DigestFromHex("ba78").ok());
  EXPECT_FALSE(DigestFromHex(std::string(64, 'G')).ok());
}

}  // namespace
}  // namespace ganglion::crypto
