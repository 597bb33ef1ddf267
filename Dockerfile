# ccfast in a container, for CPUs:
#   docker build -t ccfast .
#   docker run --rm -v "$PWD/runs:/runs" -w / ccfast train
# with CUDA kernels for the architectures that are named (the host needs NVIDIA's container toolkit; --gpus all):
#   docker build -t ccfast:cuda --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 --build-arg CUDA=1 --build-arg ARCHITECTURES="8.0;9.0" .
# Loading images by several processes takes shared memory: docker run --shm-size 8g.
ARG BASE=ubuntu:24.04
FROM ${BASE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG CUDA=0
ARG ARCHITECTURES=8.0;9.0+PTX

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ ninja-build python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN pip install --index-url ${TORCH_INDEX} torch torchvision && pip install "setuptools>=77" wheel ninja

COPY . /src
RUN CCFAST_CUDA=${CUDA} TORCH_CUDA_ARCH_LIST=${ARCHITECTURES} pip install --no-build-isolation /src \
    && cd / && ccfast info

ENTRYPOINT ["ccfast"]
CMD ["--help"]
