#!/bin/sh
# All that follows a training: exports the model, makes the golden files anew, writes the measured numbers.
#
#     [PYTHON=...] sh models/tiny/finish.sh TRAINED
set -eu
trained=$1
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

"$python" "$here/export.py" "$trained"
"$python" "$here/../../tests/golden/quant/make_quant.py"
"$python" "$here/../../tests/golden/tiny/make_golden.py"
"$python" "$here/readme.py" "$trained"
