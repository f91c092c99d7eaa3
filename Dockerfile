# One file for both images: VARIANT=cpu (any machine) or cuda (x86-64, NVIDIA).
ARG PYTHON=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${PYTHON} AS packages
ARG VARIANT=cpu
COPY deploy/image/requirements-${VARIANT}.txt /requirements.txt
RUN python -m venv --without-pip /opt/faceid \
    && pip --python /opt/faceid/bin/python install --no-cache-dir --require-hashes \
       --only-binary :all: --requirement /requirements.txt

FROM ${PYTHON} AS code
COPY app /srv/faceid/app
# The models are a layer of their own, below the code, which changes more often.
RUN rm /srv/faceid/app/models/*.onnx \
    && python -m compileall -q --invalidation-mode unchecked-hash /srv/faceid/app

FROM ${PYTHON}
RUN install -d -o 10001 -g 10001 /data
COPY --from=packages /opt/faceid /opt/faceid
COPY app/models/*.onnx /srv/faceid/app/models/
COPY deploy/image/faceid /usr/local/bin/faceid
COPY LICENSE /srv/faceid/

# The NVIDIA variables ask a machine that has a driver for CUDA; elsewhere they mean nothing.
ENV PATH=/opt/faceid/bin:$PATH \
    PYTHONPATH=/srv/faceid \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FACEID_STORE__PATH=/data \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /srv/faceid
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=4); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["faceid"]
CMD ["serve", "--host", "0.0.0.0"]

COPY --from=code /srv/faceid/app /srv/faceid/app

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="faceid" \
      org.opencontainers.image.description="A self-hosted face-identity service: photos in, persons out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
