"""Whole jobs as functions: train, igtt, predict, audit, prepare.

The only package that may import everything of `metaseg`.
"""
