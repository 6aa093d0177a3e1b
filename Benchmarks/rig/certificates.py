"""Certificates of the kind that the mesh has: P-256, signed by one root, with a SPIFFE ID."""
import subprocess

CLIENT = "spiffe://bench.test/ns/bench/sa/client"
SERVER = "spiffe://bench.test/ns/bench/sa/server"
# nginx and haproxy verify a peer by its DNS name.
NAME = "server.bench.test"


def make(folder):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=folder, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench", "-days", "2")
    for name, subject in (("client", f"URI:{CLIENT}"), ("server", f"URI:{SERVER}"), ("named", f"DNS:{NAME}")):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/")
        (folder / f"{name}.ext").write_text(
            f"subjectAltName=critical,{subject}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
                "-extfile", f"{name}.ext", "-out", f"{name}.pem")
        (folder / f"{name}.both.pem").write_text((folder / f"{name}.pem").read_text() + (folder / f"{name}.key").read_text())
