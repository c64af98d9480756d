# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=ubuntu:22.04
FROM $BASE_DOCKER
RUN echo about to fail && exit 9
