#!/usr/bin/env bash
# Render one tiny picture with the given Python. Where that fails for want of OpenGL, install Mesa (as root on Debian or
# Ubuntu) or say what to install.
set -euo pipefail

python=$1
export MUJOCO_GL=${MUJOCO_GL:-egl}

draws() {
  "$python" -c 'from lotj.sim.env import InsertionEnv; InsertionEnv(image_size=16).reset(seed=0)'
}

if error=$(draws 2>&1); then
  exit 0
fi
echo "$error" | tail -n 1
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Mesa's off-screen renderer: apt-get install libegl1 libgl1-mesa-dri"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libegl1 libgl1-mesa-dri >/dev/null
  draws
else
  echo "lotj draws its camera's pictures with OpenGL. Install Mesa, then repeat the command:"
  echo "  sudo apt-get install libegl1 libgl1-mesa-dri      (Debian, Ubuntu; elsewhere see docs/install.md)"
  exit 1
fi
