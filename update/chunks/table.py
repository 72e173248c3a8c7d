"""The constants of zchunk's rolling hash: one 32-bit number per byte value.

They are data of zchunk (src/lib/buzhash/buzhash.c), and come with its notice:

Copyright (c) 2015 the urlblock developers
Copyright (c) 2018 Jonathan Dieter <jdieter@gmail.com>

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

import struct
from typing import Final

_WORDS: Final = """
    458be752 c10748cc fbbcdbb8 6ded5b68 b10a82b5 20d75648 dfc5665f a8428801
    7ebf5191 841135c7 65cc53b3 280a597c 16f60255 c78cbc3e 294415f5 b938d494
    ec85c4e6 b7d33edc e549b544 fdeda5aa 882bf287 3116737c 05569956 e8cc1f68
    0806ac5e 22a14443 15297e10 50d090e7 4ba60f6f efd9f1a7 5c5c885c 82482f93
    9bfd7c64 0b3e7276 f2688e77 8fad8abc b0509568 f1ada29f a53efdfe cb2b1d00
    f2a9e986 6463432b 95094051 5a223ad2 9be8401b 61e579cb 1a556a14 5840fdc2
    9261ddf6 cde002bb 52432bb0 bf17373e 7b7c222f 2955ed16 9f10ca59 e840c4c9
    ccabd806 14543f34 1462417a 0d4a1f9c 087ed925 d7f8f24c 7338c425 cf86c8f5
    b19165cd 9891c393 325384ac 0308459d 86141d7e c922116a e2ffa6b6 53f52aed
    2cd86197 f5b9f498 bf319c8f e0411fae 977eb18c d8770976 9833466a c674df7f
    8c297d45 8ca48d26 c49ed8e2 7344f874 556f79c7 6b25eaed a03e2b42 f68f66a4
    8e8b09a2 f2e0e62a 0d3a9806 9729e493 8c72b0fc 160b94f6 450e4d3d 7a320e85
    bef8f0e1 21d73653 4e3d977a 1e7b3929 1cc6c719 be478d53 8d752809 e6d8c2c6
    275f0892 c8acc273 4cc21580 ecc4a617 f5f7be70 e795248a 375a2fe9 425570b6
    8898dcf8 dc2d97c4 0106114b 364dc22f 1e0cad1f be63803c 5f69fac2 4d5afa6f
    1bc0dfb5 fb273589 0ea47f7b 3c1c2b50 21b2a932 6b1223fd 2fe706a8 f9bd6ce2
    a268e64e e987f486 3eacf563 1ca2018c 65e18228 2207360a 57cf1715 34c37d2b
    1f8f3cde 93b657cf 31a019fd e69eb729 8bca7b9b 4c9d5bed 277ebeaf e0d8f8ae
    d150821c 31381871 afc3f1b0 927db328 e95effac 305a47bd 426ba35b 1233af3f
    686a5b83 50e072e5 d9d3bb2a 8befc475 487f0de6 c88dff89 bd664d5e 971b5d18
    63b14847 d7d3c1ce 7f583cf3 72cbcb09 c0d0a81c 7fa3429b e9158a1b 225ea19a
    d8ca9ea3 c763b282 bb0c6341 020b8293 d4cd299d 58cfa7f8 91b4ee53 37e4d140
    95ec764c 30f76b06 5ee68d24 679c8661 a41979c2 f2b61284 4fac1475 0adb49f9
    19727a23 15a7e374 c43a18d5 3fb1aa73 342fc615 924c0793 bee2d7f0 8a279de9
    4aa2d70c e24dd37f be862c0b 177c22c2 5388e5ee cd8a7510 f901b4fd dbc13dbc
    6c0bae5b 64efe8c7 48b02079 80331a49 ca3d8ae6 f3546190 fed7108b c49b941b
    32baf4a9 eb833a4a 88a3f1a5 3a91ce0a 3cc27da1 7112e684 4a3096b1 3794574c
    a3c8b6f3 1d213941 6e0a2e00 233479f1 0f4cd82f 6093edd2 5d7d209e 464fe319
    d4dcac9e 0db845cb fb5e4bc3 e0256ce1 09fb4ed1 0914be1e a5bdb2c3 c6eb57bb
    30320350 3f397e91 a67791bc 86bc0e2c efa0a7e2 e9ff7543 e733612c d185897b
    329e5388 91dd236b 2ecb0d93 f4d82a3d 35b5c03f e4e606f0 05b21843 37b45964
    5eff22f4 6027f4cc 77178b3c ae507131 7bf7cabc f9c18d66 593ade65 d95ddf11
"""

TABLE: Final[tuple[int, ...]] = struct.unpack(">256I", bytes.fromhex(_WORDS))
