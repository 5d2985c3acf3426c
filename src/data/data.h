// data: files into tensors.
//
//   file.h     whole files: bounded reading (gzip is opened on the way), atomic writing
//   formats.h  idx, CSV, npy, npz and images, from bytes to tensors; each parser refuses what does not add up
//   dataset.h  a labelled set: features, labels, and the digest that a certificate is bound to
#pragma once

#include "data/dataset.h"
#include "data/file.h"
#include "data/formats.h"
