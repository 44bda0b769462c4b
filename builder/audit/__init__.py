"""What a wheel really holds, and whether it runs on the target: read without a GPU, on any machine, for any machine.

One pass over the bytes makes facts (`contents`, `elf`, `fatbin`), judges turn facts into findings (`files`, `linkage`,
`device`, `sets`), `report` puts them together. Facts and judges are pure: the same bytes give the same findings.
"""
