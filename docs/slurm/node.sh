#!/bin/bash
# One node of a training run: torchrun, and a way to stop it that leaves it time to save.
#
#   GPUS_PER_NODE=8 NODES=2 HEAD=node01:29500 RUN_ID=1 docs/slurm/node.sh pretrain --config vggsound ...
#
# SIGUSR1 reaches the training processes as SIGTERM, and them alone: torchrun itself answers a SIGTERM by killing its
# processes after 30 seconds, which a large checkpoint may outlast. All processes of all nodes then finish the same
# step, write one checkpoint and end.
# Exit code: 0 finished, 75 stopped on request (the same command continues), else what torchrun ended with.
set -u

# What a program ignores when it starts, it ignores: the signal that goes to a whole job step does nothing to torchrun.
(
    trap '' USR1
    exec python -m torch.distributed.run \
        --nnodes "${NODES:-1}" --nproc-per-node "${GPUS_PER_NODE:-1}" \
        --rdzv-backend c10d --rdzv-endpoint "${HEAD:-localhost:29500}" --rdzv-id "${RUN_ID:-0}" \
        -m deepavfusion "$@"
) &
launcher=$!
stopping=
trap 'stopping=yes; pkill -TERM -P "$launcher"' USR1
trap 'stopping=yes; kill -TERM "$launcher"' TERM

wait "$launcher"
code=$?
while kill -0 "$launcher" 2>/dev/null; do # a signal ended the wait, not the launcher
    wait "$launcher"
    code=$?
done
if [ -n "$stopping" ] && [ "$code" -ne 0 ]; then
    exit 75
fi
exit "$code"
