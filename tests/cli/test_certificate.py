"""The reading of certificates, against what OpenSSL reads in the same ones."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from wsengine.cli.certificate import read_certificate


def der_of(path):
    with open(path) as file:
        text = file.read()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE"):text.index("-----END CERTIFICATE") + 26])


@pytest.mark.parametrize(("begins", "ends"), [
    (datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)),  # UTCTime, both centuries
    (datetime(2020, 1, 1, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)),                  # GeneralizedTime
])
def test_names_issuer_and_dates_are_read(certificates, begins, ends):
    path = certificates.issue("a.example", "*.b.example", "192.0.2.1", "2001:db8::1", common_name="a.example",
                              organization_name="Ærlig & Söhne", not_before=begins, not_after=ends)
    certificate = read_certificate(der_of(path))
    assert set(certificate.names) == {"a.example", "*.b.example", "192.0.2.1", "2001:db8::1"}
    assert certificate.subject.startswith("CN=a.example")
    assert "O=Ærlig & Söhne" in certificate.subject
    assert "O=trustme" in certificate.issuer
    assert (certificate.begins, certificate.ends) == (begins, ends)
    assert not certificate.self_issued
    assert certificate.days_left(ends - timedelta(days=3)) == 3
    assert certificate.days_left(ends + timedelta(hours=12)) == -0.5


def test_it_agrees_with_openssl(certificates):
    certificate = read_certificate(der_of(certificates.ca_file))
    context = certificates.context()
    [read] = context.get_ca_certs()
    seconds = [ssl.cert_time_to_seconds(read[name]) for name in ("notBefore", "notAfter")]
    assert [certificate.begins.timestamp(), certificate.ends.timestamp()] == seconds
    assert certificate.self_issued
    for relative in read["subject"]:
        for name, value in relative:
            assert name in ("organizationName", "organizationalUnitName")
            assert value in certificate.subject


def test_what_breaks_off_or_is_changed_is_refused_or_read_but_never_fails_otherwise(seed):
    """Each prefix, and each byte changed: a ValueError at the most."""
    der = ssl.PEM_cert_to_DER_cert(trustme.CA().cert_pem.bytes().decode())
    for end in range(len(der)):
        with pytest.raises(ValueError, match=r"."):
            read_certificate(der[:end])
    for at in range(len(der)):
        for changed in (der[at] ^ 0xFF, der[at] ^ 0x80, der[at] ^ 0x01):
            try:
                read_certificate(der[:at] + bytes([changed]) + der[at + 1:])
            except ValueError:
                continue
