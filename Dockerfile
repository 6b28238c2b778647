# One image for the control plane, the sidecar and the init container: the program, which needs no library, and certificates
# of authorities; no shell, no package manager, nothing to write to.
FROM node:22-bookworm-slim AS node

FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# Builds the dashboard; Debian's own is too old.
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln --symbolic ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /src
COPY . .
# glibc within the program: as fast as elsewhere, and none of its libraries is needed, not for names either. Addresses that are
# adjusted at the start stand packed (RELR), a twentieth of the program less.
RUN cargo rustc --profile image --locked --package heddle --bin heddle -- \
    -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs
RUN mkdir --parents /image/usr/local/bin && cp target/image/heddle /image/usr/local/bin/ \
    && cp --parents /etc/ssl/certs/ca-certificates.crt /image

FROM scratch
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/heddle"]
