# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
ARG BASE_DOCKER=ubuntu:22.04
FROM $BASE_DOCKER
COPY --from=tools hello.sh /opt/mad/tools/hello.sh
