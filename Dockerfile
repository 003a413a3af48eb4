# The server with its offline engines. docs/deploy.md has the line to run it with.
FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY realtime realtime
COPY media media
COPY signaling signaling
COPY token_service token_service
# pocketsphinx by itself: the extra `local` also has a build of espeak-ng, which here is Debian's package.
RUN python3 -m venv /opt/realtime \
 && /opt/realtime/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt . pocketsphinx

FROM debian:bookworm-slim
# espeak-ng (GPL-3.0-or-later) is a package and a program of its own; NOTICE says what else is in here.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates espeak-ng python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin realtime \
 && install -d -o realtime -g realtime -m 0700 /data
COPY --from=build /opt/realtime /opt/realtime
COPY LICENSE NOTICE /usr/share/doc/infrai-realtime/
ENV PATH=/opt/realtime/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    REALTIME_DATA=/data \
    REALTIME_HOST=0.0.0.0 \
    REALTIME_PORT=8080 \
    REALTIME_UDP_PORTS=50000-50199
USER realtime
WORKDIR /data
VOLUME /data
EXPOSE 8080/tcp 50000-50199/udp
HEALTHCHECK --interval=15s --timeout=4s --start-period=10s \
  CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['REALTIME_PORT'] + '/healthz', timeout=3)"]
ENTRYPOINT ["realtime"]
CMD ["serve"]
