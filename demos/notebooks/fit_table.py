# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fit a table with a KAN
#
# `KANRegressor` is a scikit-learn estimator. It fits an ensemble of linear models, additive
# splines and Kolmogorov-Arnold networks (KANs), and chooses their number of knots by itself. This
# notebook needs mgnet with its extra `app`.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mgnet.estimators import KANRegressor

# %% [markdown]
# The table is Friedman's first test function: of ten inputs, five count, and two of these
# interact,
#
# $$
# y = 10 \sin(\pi x_0 x_1) + 20 (x_2 - \tfrac{1}{2})^2 + 10 x_3 + 5 x_4 + \text{noise}.
# $$
#
# The standard deviation of the noise is 1, so no model can have a smaller error on new rows.

# %%
x, y = make_friedman1(n_samples=900, n_features=10, noise=1.0, random_state=0)
x_train, x_test, y_train, y_test = train_test_split(x, y, train_size=400, random_state=0)

# %% [markdown]
# ## Three estimators
#
# Each estimator stands at the end of a pipeline. `KANRegressor` scales its inputs by itself and
# works with or without the scaler.

# %%
models = {
    "linear model": LinearRegression(),
    "boosted trees": HistGradientBoostingRegressor(random_state=0),
    "KANRegressor": KANRegressor(random_state=0),
}
fitted, errors = {}, {}
for name, model in models.items():
    fitted[name] = make_pipeline(StandardScaler(), model).fit(x_train, y_train)
    errors[name] = float(np.sqrt(np.mean((fitted[name].predict(x_test) - y_test) ** 2)))
    print(f"{name:<14} root mean square error on new rows {errors[name]:.2f}")

# %% [markdown]
# ## How sure is a prediction?
#
# `return_std=True` also returns the standard deviation of a new measurement: the noise, and the
# disagreement of the members of the ensemble. About 95 % of new rows should lie within two
# standard deviations.

# %%
predicted, std = fitted["KANRegressor"].predict(x_test, return_std=True)
covered = float(np.mean(abs(predicted - y_test) < 2.0 * std))
print(f"{covered:.0%} of the new rows lie within two standard deviations")

# %%
figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
ax.errorbar(y_test[:100], predicted[:100], 2.0 * std[:100], fmt=".", elinewidth=0.8)
ax.axline((15.0, 15.0), slope=1.0, color="0.5", linestyle="--")
ax.set(xlabel="measured", ylabel="predicted, with two standard deviations")
