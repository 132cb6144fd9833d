# What somebody does who has the package on a fresh machine, and nothing of its sources: builds programs in C, C++ and
# Python against it, and moves a hundred megabytes each way with each of them. Run by `cargo xtask dist --verify`.
set -eu
cd /verify
mkdir -m 700 home
export HOME=/verify/home

bastide --version
bastide plugin check /usr/lib/bastide/libbastide_keyvault.so
test "$(pkg-config --modversion bastide)" = "$(bastide --version | cut -d ' ' -f 2)"

flags="-D_POSIX_C_SOURCE=200809L -Wall -Wextra -pedantic -Werror -pthread"
cc -std=c11 $flags -o in-c copy.c $(pkg-config --cflags --libs bastide)
c++ -std=c++17 $flags -o in-cpp copy.cpp $(pkg-config --cflags --libs bastide)
# The library inside of the program: where there is no shared one, the linker takes the other.
mkdir static
ln -s "$(pkg-config --variable=libdir bastide)/libbastide.a" static/
cc -std=c11 $flags -o with-library-inside copy.c -Lstatic $(pkg-config --static --cflags --libs bastide)
! ldd with-library-inside | grep libbastide
ldd in-c | grep -q 'libbastide.so.0 => /'

bastide-emulator --state azure -o json > emulator.json &
emulator=$!
trap 'kill $emulator 2> /dev/null || true' EXIT
patience=300
until grep -q '"ready"' emulator.json; do
    patience=$((patience - 1))
    test $patience -gt 0
    sleep 0.1
done
. azure/env.sh
vm="/subscriptions/$AZURE_SUBSCRIPTION_ID/resourceGroups/demo/providers/Microsoft.Compute/virtualMachines/web-01"

for program in ./in-c ./in-cpp ./with-library-inside "python3 copy.py"; do
    set -- $($program name=bastion resource-group=demo target-resource-id="$vm" resource-port=7)
    echo "$program: sent $1, came back $2, $3 bytes there and $4 back"
    test "$1" = "$2" && test "$3 $4" = "104857600 104857600"
done

ssh="bastide ssh --name bastion --resource-group demo --auth-type ssh-key --username azureuser --ssh-key azure/id_ed25519"
test "$($ssh --target-resource-id "$vm" -- 'echo hello from the other side')" = "hello from the other side"
echo "ssh: a session"

kill -TERM $emulator
wait $emulator
trap - EXIT
tail -n 1 emulator.json
tail -n 1 emulator.json | grep -q '"violations":\[\]'
