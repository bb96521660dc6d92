{% from "jinja/macros.jinja" import python with context -%}{{ python("common/engine/average.py") -}}
