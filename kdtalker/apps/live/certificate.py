"""Make a throw-away certificate for the DTLS handshake of WHIP."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from kdtalker.core.errors import InputError


def write_certificate(folder: Path) -> dict[str, str]:
    """Write key and certificate (ECDSA on P-256, which RFC 8827 asks of everyone; that of ffmpeg with GnuTLS is refused
    by some servers) to a folder; return the options of the muxer. Raises InputError without the extra [webrtc]."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise InputError("WHIP needs a package more: pip install 'kdtalker[webrtc]'.") from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kdtalker")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "certificate.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(encoding))
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, *plain))
    return {"cert_file": str(folder / "certificate.pem"), "key_file": str(folder / "key.pem")}
