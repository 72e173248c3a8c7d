# Fieldrelay's boot script for a device with two slots: counts the starts of a trial and ends it by itself.
#
# The same logic as node_agent/bootloaders/boot_script.py, where the variables are explained; tests/system runs this file
# in a real U-Boot and compares. Build:  mkimage -A arm64 -T script -C none -d boot.cmd boot.scr
#
# The board's environment provides
#   fieldrelay_boot_a, fieldrelay_boot_b   load and start the kernel of a slot; $bootargs names the slot already
#   fieldrelay_save                        write the environment; saveenv where it is not set
# The environment must be redundant (CONFIG_SYS_REDUNDAND_ENVIRONMENT), and fw_env.config must name both copies.

if test -n "$fieldrelay_save"; then true; else setenv fieldrelay_save saveenv; fi

# Absent and malformed variables have their defaults. Numbers have one digit: setexpr counts in hexadecimal.
if test "$bootslot" != b; then setenv bootslot a; fi
fr_valid=0
for digit in 0 1 2 3 4 5 6 7 8 9; do if test "$bootcount" = $digit; then fr_valid=1; fi; done
if test $fr_valid = 0; then setenv bootcount 0; fi
fr_valid=0
for digit in 1 2 3 4 5 6 7 8 9; do if test "$bootlimit" = $digit; then fr_valid=1; fi; done
if test $fr_valid = 0; then setenv bootlimit 2; fi

if test "$upgrade_available" = 1; then
  if test $bootslot = a; then fr_back=b; else fr_back=a; fi
  if test $bootcount -ge $bootlimit; then
    setenv bootslot $fr_back
    setenv upgrade_available 0
    setenv bootcount 0
    setenv ustate 3
  else
    setexpr bootcount $bootcount + 1
    setenv ustate 2
  fi
  # A trial that cannot be counted would never end: it is not started.
  if run fieldrelay_save; then true; else setenv bootslot $fr_back; fi
fi

setenv bootargs "$bootargs fieldrelay.slot=$bootslot"
run fieldrelay_boot_$bootslot
echo "fieldrelay: slot $bootslot did not start"
sleep 1
reset
