# The laboratory's board: a redundant environment in raw blocks of the disk, and slots that only say that they started.
# Each copy has 0x4000 bytes: CRC-32 of the data (little-endian), one byte that counts writes, the data.
# `sum` leaves the checksum of the copy at $at, little-endian, at 0x42020010: crc32 stores it the other way round.
setenv sum 'setexpr data $at + 5; crc32 $data 0x3ffb 0x42020000; setexpr.b x *0x42020000; mw.b 0x42020013 $x; setexpr.b x *0x42020001; mw.b 0x42020012 $x; setexpr.b x *0x42020002; mw.b 0x42020011 $x; setexpr.b x *0x42020003; mw.b 0x42020010 $x'
virtio read 0x42000000 0x20 0x20
virtio read 0x42010000 0x40 0x20
newest=none
setenv at 0x42000000
run sum
if itest.l *0x42000000 == *0x42020010; then newest=0x42000000; setenv older 0x42010000; setenv block 0x40; fi
setenv at 0x42010000
run sum
if itest.l *0x42010000 == *0x42020010; then
  fresher=1
  if test $newest != none; then fresher=0; if itest.b *0x42010004 > *0x42000004; then fresher=1; fi; fi
  if test $fresher = 1; then newest=0x42010000; setenv older 0x42000000; setenv block 0x20; fi
fi
if test $newest = none; then echo LAB no environment; poweroff; fi
setexpr data $newest + 5
setexpr flag $newest + 4
setexpr.b count *$flag
setexpr count $count + 1
env import -b $data 0x3ffb
setenv fieldrelay_save 'setexpr data $older + 5; setexpr flag $older + 4; env export -b -s 0x3ffb $data; mw.b $flag $count; setenv at $older; run sum; cp.b 0x42020010 $older 4; virtio write $older $block 0x20'
setenv say 'echo LAB slot=$bootslot count=$bootcount up=$upgrade_available ustate=$ustate args=$bootargs'
setenv fieldrelay_boot_a 'run say; poweroff'
setenv fieldrelay_boot_b 'run say; if test "$lab_b" = crash; then echo LAB crash; reset; fi; poweroff'
if test "$lab_save" = broken; then setenv fieldrelay_save false; fi
