// For tests: an authority, and certificates that it signed, made with the openssl command line. EC keys, for they are
// made in milliseconds.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "net/tls.h"

namespace ganglion::net {

// Makes DIR/NAME.pem and DIR/NAME.key, an authority of its own. False when openssl failed.
inline bool MakeAuthority(const std::filesystem::path& dir, const std::string& name) {
  const std::string base = (dir / name).string();
  return std::system(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=" +
                      name + " -keyout " + base + ".key -out " + base + ".pem >/dev/null 2>&1")
                         .c_str()) == 0;
}

// Makes DIR/NAME.pem and DIR/NAME.key for 127.0.0.1 and localhost, signed by DIR/AUTHORITY.pem.
inline bool MakeCertificate(const std::filesystem::path& dir, const std::string& authority, const std::string& name) {
  const std::string base = (dir / name).string();
  const std::string ca = (dir / authority).string();
  const std::string request = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name +
                              " -keyout " + base + ".key -out " + base + ".csr >/dev/null 2>&1";
  const std::string names = "printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > " + base + ".ext";
  const std::string sign = "openssl x509 -req -days 30 -in " + base + ".csr -CA " + ca + ".pem -CAkey " + ca +
                           ".key -CAcreateserial -extfile " + base + ".ext -out " + base + ".pem >/dev/null 2>&1";
  return std::system((request + " && " + names + " && " + sign).c_str()) == 0;
}

inline TlsFiles FilesOf(const std::filesystem::path& dir, const std::string& name, const std::string& authority) {
  return {(dir / (name + ".pem")).string(), (dir / (name + ".key")).string(),
          authority.empty() ? "" : (dir / (authority + ".pem")).string(), false};
}

}  // namespace ganglion::net
