# The command line in an image. The build context is a checkout; videos and runs are mounted:
#
#   docker build -t deepavfusion .                                      # CPU
#   docker build -t deepavfusion --build-arg DEVICE=cu128 .             # CUDA 12.8 (cu126, cu130, ...: as the driver has)
#   docker build -t deepavfusion --build-arg EXTRAS=[serve,index] .     # with extras of pyproject.toml
#   docker run --rm --user "$(id -u)" -v ~/my_clips:/clips:ro -v "$PWD/runs":/runs deepavfusion \
#       pretrain --config tiny --data.source /clips --run_dir /runs/a
#
# With CUDA add `--gpus all`, and `--shm-size 8g` for data loading in several processes.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG DEVICE=cpu
ARG EXTRAS=

# uv knows by the name of a device which build of PyTorch to take.
RUN pip install --no-cache-dir uv==0.13.9

WORKDIR /opt/deepavfusion
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN uv pip install --system --no-cache --torch-backend "${DEVICE}" -c constraints.txt ".${EXTRAS}" \
    && deepavfusion --version

# Any user: caches of libraries go where everyone may write.
ENV HOME=/tmp
WORKDIR /runs
RUN chmod 1777 /runs
USER 1000
ENTRYPOINT ["deepavfusion"]
CMD ["--help"]
