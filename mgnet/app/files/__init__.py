"""Files of columns, whatever kind they are: text of any dialect, NumPy archives, Parquet, Excel.

Reading order: `columns`, `opening`; `text` with `dialect`, `layout` and `cells`; `arrays`; `typed`
with `parquet` and `excel`; `stream`.
"""
