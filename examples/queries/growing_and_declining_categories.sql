-- Which categories grow and which decline? Revenue of paid orders, each month against the one before; the newest first.
-- Only months that have ended. An item whose product is gone has no category: it is left out.
WITH months AS (
    SELECT DISTINCT "Year" AS year, "Month" AS month
    FROM gold."DimDate"
    WHERE "DateKey" BETWEEN (SELECT min("OrderDateKey") FROM gold."FactSales")
                        AND (SELECT max("OrderDateKey") FROM gold."FactSales")
      AND "Date" < date_trunc('month', now())
),
sold AS (
    SELECT f."CategoryID" AS category_id, d."Year" AS year, d."Month" AS month, sum(f."Revenue") AS revenue
    FROM gold."FactSales" f
    JOIN gold."DimDate" d ON d."DateKey" = f."OrderDateKey"
    WHERE f."IsPaid"
    GROUP BY 1, 2, 3
),
by_month AS (
    SELECT m.year, m.month, c."CategoryID" AS category_id, c."CategoryName" AS category,
           coalesce(s.revenue, 0) AS revenue,
           lag(coalesce(s.revenue, 0)) OVER (PARTITION BY c."CategoryID" ORDER BY m.year, m.month) AS revenue_before
    FROM gold."DimCategory" c
    CROSS JOIN months m
    LEFT JOIN sold s ON s.category_id = c."CategoryID" AND s.year = m.year AND s.month = m.month
)
SELECT year, month, category_id, category, revenue, revenue_before,
       revenue - revenue_before AS change,
       round(100.0 * (revenue - revenue_before) / nullif(revenue_before, 0), 2) AS change_percent,
       CASE WHEN revenue > revenue_before THEN 'growing'
            WHEN revenue < revenue_before THEN 'declining'
            ELSE 'steady' END AS trend
FROM by_month
WHERE revenue_before IS NOT NULL
ORDER BY year DESC, month DESC, change DESC, category_id;
