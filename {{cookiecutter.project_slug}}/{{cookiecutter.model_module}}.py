{% from "jinja/macros.jinja" import python with context -%}{{ python(cookiecutter.variant ~ "/" ~ cookiecutter._models[cookiecutter.variant] | lower ~ ".py") -}}
