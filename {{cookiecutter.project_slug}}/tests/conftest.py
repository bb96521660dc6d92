{% from "jinja/macros.jinja" import python with context -%}{{ python("common/tests/conftest.py") -}}
