#!/usr/bin/env bash
# A fit on several nodes without a scheduler: run this on each, in the folder that holds configs/, with the same NODES, DEVICES, HEAD (the first node's address)
# and PORT, and with NODE = 0, 1, ...; what follows the script's name goes to graspl fit:
#   NODES=2 NODE=0 HEAD=10.0.0.1 configs/trainer/nodes.sh --config configs/fit.yaml --data configs/tasks/chat.yaml \
#       --model configs/methods/grasp.yaml --model.base_model ... --trainer.default_root_dir runs/grasp32b
# The folder must be on a disk that all nodes share. Started again, it goes on from the last checkpoint.
set -euo pipefail
nodes=${NODES:-2} devices=${DEVICES:-8}
torchrun --nnodes "$nodes" --nproc-per-node "$devices" --node-rank "${NODE:-0}" \
    --master-addr "${HEAD:-127.0.0.1}" --master-port "${PORT:-29500}" -m graspl fit "$@" \
    --config configs/trainer/fsdp.yaml --trainer.num_nodes "$nodes" --trainer.devices "$devices" \
    --trainer.strategy.data_parallel_size "$((nodes * devices))" --ckpt_path last
