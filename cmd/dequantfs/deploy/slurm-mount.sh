#!/bin/bash
# Runs a command on one node with a view of a checkpoint mounted. It unmounts afterwards, also when
# the job is cancelled:
#
#     sbatch slurm-mount.sh /models/DeepSeek-V3 torchrun --nproc-per-node 8 train.py
#
# The command finds the mount's directory in $CHECKPOINT.
#SBATCH --job-name=dequantfs-mount
#SBATCH --nodes=1
#SBATCH --signal=B:TERM@60
set -euo pipefail
source=$1
shift
dequantfs=${DEQUANTFS:-dequantfs}
CHECKPOINT=$(mktemp -d "${TMPDIR:-/tmp}/dequantfs.XXXXXX")
export CHECKPOINT
leave() {
	"$dequantfs" umount "$CHECKPOINT" 2>/dev/null || "$dequantfs" umount --lazy "$CHECKPOINT" || true
	rmdir "$CHECKPOINT"
}
trap leave EXIT
"$dequantfs" mount "$source" "$CHECKPOINT"
"$@" &
command=$!
trap 'kill -TERM $command' TERM INT
status=0
wait $command || status=$?
wait $command 2>/dev/null || true
exit $status
