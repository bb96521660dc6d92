{% from "jinja/macros.jinja" import python with context -%}{{ python(cookiecutter.variant ~ "/tests/test_prepare_data.py") -}}
