{% from "jinja/macros.jinja" import python with context -%}{{ python("common/tests/guide/__main__.py") -}}
