"""This folder measures what a second thread brings on an idle machine, and costs on a busy one."""
