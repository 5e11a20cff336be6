# The three images: `docker build --target operator .` (or trainer, or trainer-cuda).
# Each holds one program and the libraries it loads: no shell, no package manager, no root.

# ---- what all three share: glibc, the C++ runtime, certificates, one user without rights
FROM rust:1.95.0-bookworm AS pieces
RUN mkdir -p /image/etc && mkdir -m 1777 /image/tmp \
 && echo 'nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin' > /image/etc/passwd \
 && echo 'nonroot:x:65532:' > /image/etc/group \
 && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
 && cp -L --parents -t /image $(ls -d /lib64/ld-linux-*.so.? /lib/ld-linux-*.so.? 2>/dev/null) \
      $(ldconfig -p | awk '/^\t(lib(c|m|dl|rt|util|pthread|resolv|nss_dns|nss_files|gcc_s|stdc\+\+)\.so\.[0-9]+) /{print $NF}')

FROM scratch AS runtime
COPY --from=pieces /image /
COPY --from=pieces /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532

# ---- the operator
FROM rust:1.95.0-bookworm AS build-operator
# The toolchain of this image is the one that rust-toolchain.toml names; its components are not needed here.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# The cargo profile; `cargo xtask image` gives its own, which builds faster after a change.
ARG PROFILE=operator
# Cargo trusts modification times, and the build folder may have seen another checkout: sources are always new.
RUN --mount=type=cache,id=anneal-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=anneal-operator,target=/target \
    find . -type f -exec touch {} + \
 && cargo build --profile "$PROFILE" --locked --target-dir /target --package anneal-operator --bin anneal-operator \
 && install -D -t /app/bin "/target/$PROFILE/anneal-operator"

FROM runtime AS operator
COPY --from=build-operator /app /app
# The allocator asks for huge pages by default, and would hold far more than this process needs.
ENV MIMALLOC_ALLOW_THP=0
ENTRYPOINT ["/app/bin/anneal-operator"]

# ---- the trainer
FROM python:3.11-slim-bookworm AS libtorch
COPY trainer/libtorch.py /
RUN python3 /libtorch.py cpu /libtorch

FROM rust:1.95.0-bookworm AS build-trainer
ENV RUSTUP_TOOLCHAIN=1.95.0 LIBTORCH=/libtorch
COPY --from=libtorch /libtorch /libtorch
# The symbol tables are a fifth of it, and only the linker reads them.
RUN install -D -t /app/lib /libtorch/lib/*.so.* /libtorch/lib/libc10.so /libtorch/lib/libtorch_cpu.so \
 && strip --strip-unneeded /app/lib/libtorch_cpu.so
WORKDIR /src
COPY . .
ARG PROFILE=release
RUN --mount=type=cache,id=anneal-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=anneal-trainer,target=/target \
    find . -type f -exec touch {} + \
 && cargo build --profile "$PROFILE" --locked --target-dir /target --package anneal-trainer --bin anneal-trainer \
 && install -D -t /app/bin "/target/$PROFILE/anneal-trainer"

FROM runtime AS trainer
COPY --from=build-trainer /app/lib /app/lib
COPY --from=build-trainer /app/bin /app/bin
ENTRYPOINT ["/app/bin/anneal-trainer"]

# ---- the same binary with the GPU's libraries beside it, which it opens when a GPU is asked for
FROM python:3.11-slim-bookworm AS libtorch-cuda
COPY trainer/libtorch.py /
RUN python3 /libtorch.py cuda /libtorch

FROM trainer AS trainer-cuda
COPY --from=libtorch-cuda /libtorch/lib /app/lib
# What the NVIDIA container runtime mounts: the driver's own libraries.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
