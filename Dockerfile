# The server in an image of its own. Two stages: what builds the wheel does not stay.
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY mms mms
COPY migrations migrations
RUN pip install --no-cache-dir --disable-pip-version-check --prefix=/installed .

FROM python:3.11-slim
COPY --from=build /installed /usr/local
RUN useradd --create-home --uid 1000 mms \
    && install -d -o mms -g mms /models /var/lib/mms
USER mms
WORKDIR /home/mms
# The store, the witness and the kept archives. Mount a volume here: without one, a new container starts from nothing.
VOLUME /var/lib/mms
EXPOSE 8080 8081
# Settings come from the environment: MMS_<OPTION>, and MMS_MODEL__<NAME>__<OPTION> for one model.
COPY --chown=mms:mms docker/config.properties /etc/mms/config.properties
# The exec form, so that the server is process 1 and gets SIGTERM; it drains in 8 s, Docker waits 10.
ENTRYPOINT ["python", "-P", "-m", "mms"]
CMD ["serve", "--config", "/etc/mms/config.properties"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
