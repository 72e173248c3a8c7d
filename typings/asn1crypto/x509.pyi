# Only what Fieldrelay uses of asn1crypto 1.5.
from asn1crypto.core import Choice, Sequence

class Name(Choice): ...

class Certificate(Sequence):
    @property
    def issuer(self) -> Name: ...
    @property
    def serial_number(self) -> int: ...
