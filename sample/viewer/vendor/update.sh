#!/usr/bin/env bash
# Bundles three.js anew: bash sample/viewer/vendor/update.sh VERSION (as on npm, e.g. 0.187.0)
# Needs npm. Writes three.min.js, LICENSE.three and three.json (version, bundler, checksum).
set -euo pipefail
version=${1:?name the version of three, as npm has it}
bundler=0.28.2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
npm install --silent --no-audit --no-fund --prefix . "three@$version" "esbuild@$bundler"
cp "$here/exports.js" .
npx esbuild exports.js --bundle --minify --format=iife --global-name=THREE --target=es2020 \
    --legal-comments=none --log-level=warning --outfile=bundle.js

# The licence asks to stand in every copy, and every page holds one
{ echo "/*! three.js $version"; echo; cat node_modules/three/LICENSE; echo "*/"; cat bundle.js; } > three.min.js
cp node_modules/three/LICENSE "$here/LICENSE.three"
cp three.min.js "$here/three.min.js"
cat > "$here/three.json" <<END
{
    "esbuild": "$bundler",
    "licence": "MIT",
    "sha256": "$(sha256sum three.min.js | cut -d ' ' -f 1)",
    "three": "$version"
}
END
