# One image for the control plane, the sidecar and the init container: the program, the libraries that it is linked to and
# certificates of authorities; no shell, no package manager, nothing to write to.
FROM node:22-bookworm-slim AS node

FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# Builds the dashboard; Debian's own is too old.
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln --symbolic ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /src
COPY . .
RUN cargo build --profile image --locked --package heddle
RUN mkdir --parents /image/usr/local/bin && cp target/image/heddle /image/usr/local/bin/ \
    && cp --parents --dereference $(ldd target/image/heddle | grep --only-matching '/[^ ]*') /etc/ssl/certs/ca-certificates.crt /image

FROM scratch
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/heddle"]
