{% from "jinja/macros.jinja" import python with context -%}{{ python("common/tests/test_speed.py") -}}
