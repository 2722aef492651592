#!/bin/sh
# The paper's comparison on ImageNet: two exports and their reports; see README.md beside this script.
#
#   sh reproduce.sh IMAGES RESULTS [MODEL [OPTION...]]
#
# IMAGES is what arrange_imagenet.py wrote. Words behind RESULTS replace the model, and options among them replace those
# below: an option that is given twice counts as given last. Run it again after an interruption: finished stages stay.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: sh reproduce.sh IMAGES RESULTS [MODEL [OPTION...]]" >&2
    exit 2
fi
images=$1
results=$2
shift 2
[ $# -gt 0 ] || set -- ViT-B-32-quickgelu --pretrained openai
export ORT_DISABLE_TELEMETRY=1

mkdir -p "$results"

# The paper's heads, exits, epochs and share of FLOPs; FP32, dynamic, naive and strong INT8, three seeds.
lraee-export -o "$results/paper.lraee" --work "$results/work" --overwrite \
    --train "$images/train" --calibration "$images/calibration" --evaluate "$images/val" --labels imagenet \
    --quantizer strong --reads patch_mean --exits 8,10,11 --epochs 3 --min-flops-saving 0.134 \
    --baselines --ablations --seeds 3 "$@"

# What this project does by default, from the same stages: exits, what heads read and the operating point are its choice.
lraee-export -o "$results/default.lraee" --work "$results/work" --overwrite \
    --train "$images/train" --calibration "$images/calibration" --evaluate "$images/val" --labels imagenet \
    --quantizer strong --epochs 3 --baselines "$@"

echo "send $results/*.report/report.md and metrics.json; times are measured with lraee-bench, see README.md"
