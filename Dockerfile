# leasehold as an image of about 14 MB that runs without root: docker build -t leasehold .
FROM rust:1.95-slim-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
COPY . .
# otlp, or nothing.
ARG FEATURES=""
RUN cargo build --release --locked --bin leasehold --features "$FEATURES"
# The binary, the few libraries that it is linked with (the C library among them: the same build that the tests run), the
# public certificate authorities, and the order of name look-ups. No shell, no package manager.
RUN mkdir -p /root-of-image/etc \
    && ldd target/release/leasehold | grep -o '/[^ ]*' | xargs cp --dereference --parents --target-directory=/root-of-image \
    && cp --dereference --parents /etc/ssl/certs/ca-certificates.crt /root-of-image \
    && echo 'hosts: files dns' >/root-of-image/etc/nsswitch.conf \
    && cp target/release/leasehold /root-of-image

FROM scratch
COPY --from=build /root-of-image /
# No such user is needed in /etc/passwd; a number is what Kubernetes' runAsNonRoot can check.
USER 65532:65532
EXPOSE 6432 9090
ENTRYPOINT ["/leasehold"]
CMD ["run"]
