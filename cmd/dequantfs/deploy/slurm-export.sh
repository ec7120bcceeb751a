#!/bin/bash
# Writes a view of a checkpoint to disk, shared by the tasks of an array:
#
#     sbatch --array=0-7 slurm-export.sh /models/DeepSeek-V3 /data/v3-bf16 --layout hf
#
# Each task reads its part from SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT. A task that was
# killed or requeued goes on where it stopped. The task that ends last writes the manifest.
#SBATCH --job-name=dequantfs-export
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
set -euo pipefail
exec "${DEQUANTFS:-dequantfs}" export "$@"
