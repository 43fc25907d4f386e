#!/bin/sh
# Start six workers on this machine, train on them, and stop them: sh run.sh [--rounds 20 ...]
# Each worker's log is in NAME.log.
cd "$(dirname "$0")" || exit
PYTHON=${PYTHON:-python}
trap 'kill $workers 2>/dev/null; wait' EXIT
port=8801
for name in athens berlin cairo delhi essen zurich; do
    "$PYTHON" -m syft.worker --id $name --port $port \
        --dataset hospital:load $name --key patients >$name.log 2>&1 &
    workers="$workers $!"
    port=$((port + 1))
done
"$PYTHON" train.py "$@"
