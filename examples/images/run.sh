#!/bin/sh
# Draw the images, start four workers on this machine, train on them, and stop them:
# sh run.sh [--rounds 20]. Each worker's log is in NAME.log.
cd "$(dirname "$0")" || exit
PYTHON=${PYTHON:-python}
"$PYTHON" draw.py || exit
trap 'kill $workers 2>/dev/null; wait' EXIT
port=8811
for name in paris oslo rome testing; do
    "$PYTHON" -m syft.worker --id $name --port $port \
        --dataset pictures:load pictures/$name --key pictures >$name.log 2>&1 &
    workers="$workers $!"
    port=$((port + 1))
done
"$PYTHON" train.py "$@"
