"""Files with columns, in several formats: text in any dialect, NumPy archives, Parquet, Excel.

Reading order: `columns`, `opening`; `text` with `dialect`, `layout` and `cells`; `arrays`; `typed`
with `parquet` and `excel`; `stream`.
"""
