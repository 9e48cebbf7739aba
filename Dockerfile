# leasehold as a small image that runs without root: docker build -t leasehold .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin leasehold

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/leasehold /usr/local/bin/leasehold
# No such user is needed in /etc/passwd; a number is what Kubernetes' runAsNonRoot can check.
USER 65532:65532
EXPOSE 6432 9090
ENTRYPOINT ["leasehold"]
CMD ["run"]
