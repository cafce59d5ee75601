# On a CPU:      docker build -t dareu .
# With CUDA:     docker build -t dareu:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
# With extras:   --build-arg EXTRAS=[vllm,quantise]
# Run:           docker run --rm -v "$PWD:/work" dareu train        (CUDA: docker run --gpus all …)
FROM python:3.12-slim

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=

# Results and finished stages lie in /work, which is mounted; models of the hub too.
ENV PIP_NO_CACHE_DIR=1 \
    DAREU_CACHE_DIR=/work/.dareu \
    HF_HOME=/work/.huggingface

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE CITATION.cff ./
COPY configs configs
COPY src src
# The versions are pinned, by TORCH and by constraints.txt.
# hadolint ignore=DL3013
RUN pip install --extra-index-url "$TORCH_INDEX" "$TORCH" \
    && grep -v '^torch==' constraints.txt > /tmp/pins.txt \
    && pip install -c /tmp/pins.txt ".$EXTRAS"

RUN useradd --create-home --uid 1000 dareu
USER 1000
WORKDIR /work
ENTRYPOINT ["dareu"]
CMD ["--help"]
