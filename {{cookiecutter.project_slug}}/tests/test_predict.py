{% from "jinja/macros.jinja" import python with context -%}{{ python(cookiecutter.variant ~ "/tests/test_predict.py") -}}
