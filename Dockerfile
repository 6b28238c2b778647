# One image for the control plane, the sidecar and the init container.
FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends nodejs npm && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package heddle && strip target/release/heddle

# glibc, libgcc and certificates of authorities: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/heddle /usr/local/bin/heddle
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/heddle"]
