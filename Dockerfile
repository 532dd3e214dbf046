# The image of the command tallygate: one static binary, no shell, no root. `docker build -t tallygate .` in this folder makes it.
#
# The config is /etc/tallygate/Caddyfile and the data is in /data: mount both, and keep /data, which has the ledger and the certificates.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /out/tallygate ./cmd/tallygate && mkdir -p /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/tallygate /usr/bin/tallygate
COPY --from=build --chown=nonroot:nonroot /out/data /data
COPY deploy/Caddyfile /etc/tallygate/Caddyfile
ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/data/config
VOLUME /data
EXPOSE 8402 443 443/udp
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/bin/tallygate", "health", "--config", "/etc/tallygate/Caddyfile"]
ENTRYPOINT ["/usr/bin/tallygate"]
CMD ["run", "--config", "/etc/tallygate/Caddyfile"]
