def test_nginx_bounds_match_the_defaults_of_the_service() -> None:
    common = (ROOT / "deploy/nginx-common.conf").read_text()
    settings = Settings()

    def value(directive: str, text: str = common) -> int:
        return int(re.findall(rf"^ *{directive} (\d+)[ms];", text, re.MULTILINE)[0])

    assert value("client_max_body_size") * 1024 * 1024 == settings.max_body_bytes
    assert value("proxy_read_timeout") > settings.deadline + settings.max_wait
    for name in ("nginx.conf", "nginx-compose.conf"):
        assert value("keepalive_timeout", (ROOT / "deploy" / name).read_text()) < settings.keep_alive, name
