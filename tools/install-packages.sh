# shellcheck shell=bash
# To be sourced.  install_packages makes sure that what cawfs is built and tested with is installed.
# The one list of packages: the names are those of Debian 12, Debian 13 and Ubuntu 24.04.

caw_packages=(
  g++ cmake ninja-build pkg-config python3 git
  libfuse3-dev fuse3 liburing-dev
  libzstd-dev liblz4-dev libxxhash-dev
  libabsl-dev libfmt-dev libcli11-dev nlohmann-json3-dev
  libgtest-dev libbenchmark-dev rsync
)

# Installs what is missing.  Fails, with a sentence that says what to do, when it cannot.
install_packages() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "cawfs: not a Debian or Ubuntu system: packages are not installed here." >&2
    echo "cawfs: going on; the build needs what Debian calls: ${caw_packages[*]}" >&2
    return 0
  fi

  local package missing=()
  for package in "${caw_packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
      missing+=("$package")
  done
  ((${#missing[@]} == 0)) && return 0

  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "cawfs: these packages are missing, and installing them needs root or sudo." >&2
      echo "cawfs: as root, run: apt-get update && apt-get install -y ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi

  echo "cawfs: installing ${missing[*]}"
  as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -q)
  if ! "${as_root[@]}" update ||
    ! "${as_root[@]}" install -y --no-install-recommends "${missing[@]}"; then
    echo "cawfs: apt-get could not install: ${missing[*]}" >&2
    return 1
  fi
}
